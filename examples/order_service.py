"""An order service: FastAPI, SQLAlchemy on asyncpg, two groups, the dashboard.

An order and its message are stored in one transaction. Two groups handle each order: one takes
the goods from stock, the other adds the price to the customer's account. Each happens exactly once,
whatever crashes. An order beyond the stock becomes a dead letter, and the dashboard redrives it
once there is stock again.

    pip install "durable-notify[asyncpg,embedded,fastapi,pydantic,web]" "sqlalchemy[asyncio]"
    python examples/order_service.py

It listens on port 8000, or on PORT. Its database is DURABLE_NOTIFY_DSN, else an embedded one.
Kill it as hard as you like, and start it again. http://127.0.0.1:8000/docs has its requests,
http://127.0.0.1:8000/queue the dashboard.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, PositiveInt
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import durable_notify as dn
from durable_notify import schema
from durable_notify.embedded import shared_dsn
from durable_notify.integrations.fastapi import AsyncBoundPublisher, lifespan, publisher_for
from durable_notify.web import Access, dashboard

DSN = os.environ.get("DURABLE_NOTIFY_DSN") or shared_dsn()
PRICES = {"tea": 4, "coffee": 6}
engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://", 1))
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "customer_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    item: Mapped[str]
    count: Mapped[int]
    reserved: Mapped[bool] = mapped_column(default=False)


class Stock(Base):
    __tablename__ = "stock"

    item: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class Account(Base):
    __tablename__ = "customer_account"

    customer: Mapped[str] = mapped_column(primary_key=True)
    owes: Mapped[int]


class OrderIn(BaseModel):
    customer: str
    item: str
    count: PositiveInt


class OrderPlaced(BaseModel):
    order_id: int
    customer: str
    price: int


class OutOfStockError(Exception):
    pass


orders = dn.Topic("orders", OrderPlaced)
stock = dn.AsyncConsumer(DSN, group="stock", concurrency=4, on_error={OutOfStockError: dn.Reject()})
accounts = dn.AsyncConsumer(DSN, group="accounts", concurrency=4)


@stock.on(orders, transaction=new_session)
async def reserve(message: dn.AsyncMessage[OrderPlaced], work: AsyncSession) -> None:
    """Take the goods. What it writes and the acknowledgement commit together."""
    order = await work.get_one(Order, message.payload.order_id)
    shelf = await work.get_one(Stock, order.item, with_for_update=True)
    if shelf.count < order.count:
        raise OutOfStockError(f"{order.count} {order.item} ordered, {shelf.count} there")
    shelf.count -= order.count
    order.reserved = True


@accounts.on(orders, transaction=new_session)
async def charge(message: dn.AsyncMessage[OrderPlaced], work: AsyncSession) -> None:
    """Add the price. A second delivery would charge twice, if it could be committed."""
    placed = message.payload
    new = insert(Account).values(customer=placed.customer, owes=placed.price)
    owes = Account.owes + placed.price
    await work.execute(new.on_conflict_do_update(index_elements=["customer"], set_={"owes": owes}))


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        goods = [{"item": item, "count": 100} for item in PRICES]
        await connection.execute(insert(Stock).values(goods).on_conflict_do_nothing())
    async with lifespan(stock, accounts)(app):  # a database that is not migrated stops the start
        yield
    await engine.dispose()


def operator(request: Request) -> Access | None:
    """Let this machine redrive and discard. Ask for your own session or token here."""
    here = request.client is not None and request.client.host == "127.0.0.1"
    return Access("operator", actions=("redrive", "discard")) if here else None


async def session() -> AsyncIterator[AsyncSession]:
    """Commit when the endpoint has returned, and before its response is sent."""
    async with new_session.begin() as opened:
        yield opened


Work = Annotated[AsyncSession, Depends(session, scope="function")]
Publisher = Annotated[AsyncBoundPublisher, Depends(publisher_for(Work))]

app = FastAPI(lifespan=running)
app.mount("/queue", dashboard(DSN, authorize=operator))


@app.post("/orders", status_code=201)
async def place_order(order_in: OrderIn, work: Work, publisher: Publisher) -> dict[str, int]:
    if order_in.item not in PRICES:
        raise HTTPException(404, f"there is no {order_in.item}")
    order = Order(**order_in.model_dump())
    work.add(order)
    await work.flush()  # it has its id now
    price = PRICES[order.item] * order.count
    placed = OrderPlaced(order_id=order.id, customer=order.customer, price=price)
    await publisher.publish(orders, placed, key=order.item)
    return {"id": order.id}


@app.get("/orders/{order_id}")
async def show_order(order_id: int, work: Work) -> dict[str, str | int | bool]:
    order = await work.get_one(Order, order_id)
    return {"item": order.item, "count": order.count, "reserved": order.reserved}


@app.get("/accounts/{customer}")
async def show_account(customer: str, work: Work) -> dict[str, int]:
    account = await work.get(Account, customer)
    return {"owes": account.owes if account else 0}


@app.put("/stock/{item}")
async def restock(item: str, count: PositiveInt, work: Work) -> dict[str, int]:
    (await work.get_one(Stock, item, with_for_update=True)).count = count
    return {"count": count}


@app.get("/ready")
def ready(response: Response) -> dict[str, object]:
    health = [stock.health(), accounts.health()]
    is_ready = all(one.ready for one in health)
    response.status_code = 200 if is_ready else 503
    return {"ready": is_ready, "why": [why for one in health for why in one.why]}


if __name__ == "__main__":
    schema.migrate(DSN)
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
