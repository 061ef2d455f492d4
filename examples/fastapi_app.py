"""FastAPI with SQLAlchemy on asyncpg: an order and its message are stored in one transaction.

A consumer, which starts and stops with the application, sends the confirmation. The request does
not wait for it, and it is not lost if the process dies after the response.

    pip install "durable-notify[asyncpg,pydantic]" fastapi uvicorn "sqlalchemy[asyncio]"
    durable-notify migrate
    DURABLE_NOTIFY_DSN=postgresql://... uvicorn --app-dir examples fastapi_app:app
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel, PositiveInt
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import durable_notify as dn

DSN = os.environ["DURABLE_NOTIFY_DSN"]
engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://", 1))
new_session = async_sessionmaker(engine, expire_on_commit=False)
publisher = dn.AsyncPublisher()
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
    async with new_session() as opened:
        yield opened


@consumer.on(orders, transaction=new_session)
async def confirm(message: dn.AsyncMessage[OrderPlaced], work: AsyncSession) -> None:
    """Handle a message: its writes and the acknowledgement commit together."""
    order = await work.get_one(Order, message.payload.order_id)
    order.confirmed = True
    log.info("order %d confirmed", order.id)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with consumer.running():  # a database that is not migrated stops the start
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
async def place_order(
    order_in: OrderIn, work: Annotated[AsyncSession, Depends(session)]
) -> dict[str, int]:
    async with work.begin():
        order = Order(item=order_in.item, count=order_in.count)
        work.add(order)
        await work.flush()  # it has its id now
        await publisher.publish(work, orders, OrderPlaced(order_id=order.id))
    return {"id": order.id}


@app.get("/orders/{order_id}")
async def show_order(
    order_id: int, work: Annotated[AsyncSession, Depends(session)]
) -> dict[str, str | int | bool]:
    order = await work.get_one(Order, order_id)
    return {"item": order.item, "count": order.count, "confirmed": order.confirmed}
