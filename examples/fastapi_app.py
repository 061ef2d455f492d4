"""FastAPI with SQLAlchemy on asyncpg: an order and its message are stored in one transaction.

A consumer, which starts and stops with the application, sends the confirmation. The request does
not wait for it, and it is not lost if the process dies after the response. Browsers follow orders
under /live, and operators have the dashboard under /queue.

    pip install "durable-notify[asyncpg,fastapi,pydantic,web]" "sqlalchemy[asyncio]"
    durable-notify migrate
    DURABLE_NOTIFY_DSN=postgresql://... uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, PositiveInt
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import durable_notify as dn
from durable_notify.integrations.fastapi import AsyncBoundPublisher, lifespan, publisher_for
from durable_notify.web import Access, StreamAccess, dashboard, streams

DSN = os.environ["DURABLE_NOTIFY_DSN"]
engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://", 1))
new_session = async_sessionmaker(engine, expire_on_commit=False)
consumer = dn.AsyncConsumer(DSN, group="confirmations", concurrency=4)
log = logging.getLogger("orders")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "customer_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    count: Mapped[int]
    confirmed: Mapped[bool] = mapped_column(default=False)


class OrderIn(BaseModel):
    item: str
    count: PositiveInt


class OrderPlaced(BaseModel):
    order_id: int


orders = dn.Topic("orders", OrderPlaced)


async def session() -> AsyncIterator[AsyncSession]:
    """Commit when the endpoint has returned, and before its response is sent."""
    async with new_session.begin() as opened:
        yield opened


Work = Annotated[AsyncSession, Depends(session, scope="function")]
Publisher = Annotated[AsyncBoundPublisher, Depends(publisher_for(Work))]


@consumer.on(orders, transaction=new_session)
async def confirm(message: dn.AsyncMessage[OrderPlaced], work: AsyncSession) -> None:
    """Handle a message: its writes and the acknowledgement commit together."""
    order = await work.get_one(Order, message.payload.order_id)
    order.confirmed = True
    log.info("order %d confirmed", order.id)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with lifespan(consumer)(app):  # a database that is not migrated stops the start
        yield
    await engine.dispose()


def reader(request: Request) -> StreamAccess | None:
    user = request.headers.get("x-user")  # your session, your token
    return StreamAccess(topics=("orders",)) if user else None


def operator(request: Request) -> Access | None:
    user = request.headers.get("x-user")
    return Access(user, actions=("redrive", "discard")) if user == "ops" else None


app = FastAPI(lifespan=running)
app.mount("/live", streams(DSN, authorize=reader))
app.mount("/queue", dashboard(DSN, authorize=operator))


@app.post("/orders", status_code=201)
async def place_order(order_in: OrderIn, work: Work, publisher: Publisher) -> dict[str, int]:
    order = Order(item=order_in.item, count=order_in.count)
    work.add(order)
    await work.flush()  # it has its id now
    await publisher.publish(orders, OrderPlaced(order_id=order.id))
    return {"id": order.id}


@app.get("/orders/{order_id}")
async def show_order(order_id: int, work: Work) -> dict[str, str | int | bool]:
    order = await work.get_one(Order, order_id)
    return {"item": order.item, "count": order.count, "confirmed": order.confirmed}


@app.get("/ready")
def ready(response: Response) -> dict[str, object]:
    health = consumer.health()
    response.status_code = 200 if health.ready else 503
    return {"ready": health.ready, "why": health.why}
