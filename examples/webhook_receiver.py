"""An endpoint of webhooks with FastAPI: it verifies each signature, and ignores duplicates.

    pip install fastapi uvicorn standardwebhooks
    WEBHOOK_SECRET=whsec_... uvicorn --app-dir examples webhook_receiver:app --port 8000

    DURABLE_NOTIFY_WEBHOOK_SECRET=whsec_... durable-notify relay 'orders.*' --group to-shop \\
        --to http://127.0.0.1:8000/hooks --allow 127.0.0.0/8

It needs nothing of durable_notify: any library for Standard Webhooks verifies.
"""

from __future__ import annotations

import json
import os

from fastapi import FastAPI, Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

# Two while one replaces the other.
secrets = [Webhook(secret) for secret in os.environ["WEBHOOK_SECRET"].split()]
app = FastAPI()
orders: dict[str, object] = {}  # by webhook-id; yours is a table with a unique column


def is_signed(body: bytes, headers: dict[str, str]) -> bool:
    for secret in secrets:
        try:
            # The bytes as they came: JSON that was parsed and written again has another signature.
            secret.verify(body, headers, json_parse=False)
        except WebhookVerificationError:
            continue
        return True
    return False


@app.post("/hooks", status_code=204)
async def hook(request: Request) -> Response:
    body = await request.body()
    if not is_signed(body, dict(request.headers)):
        return Response("the signature is wrong", 401)
    # The same message may come twice: its id is the same.
    orders.setdefault(request.headers["webhook-id"], json.loads(body))
    return Response(status_code=204)


@app.get("/orders")
async def stored() -> list[object]:
    return list(orders.values())
