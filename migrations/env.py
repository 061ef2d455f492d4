"""How Alembic runs the migrations. Started by ``durable_notify.schema``, and only by it."""

from alembic import context

from durable_notify import schema

VERSION = {"version_table": schema.VERSION_TABLE, "version_table_schema": schema.SCHEMA}


def run() -> None:
    """Join the caller's transaction; offline, write one."""
    if context.is_offline_mode():
        context.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},
            output_buffer=context.config.output_buffer,
            **VERSION,
        )
    else:
        context.configure(connection=context.config.attributes["connection"], **VERSION)
    with context.begin_transaction():
        for statement in schema.PREPARE:
            context.execute(statement)
        if not context.is_offline_mode():
            context.execute(schema.BOUNDED)
        current = context.get_context()
        heads = current.get_current_heads()
        schema.refuse_newer(heads)
        online = not context.is_offline_mode()
        if online and not heads and context.get_bind().exec_driver_sql(schema.FIND_LOG).scalar():
            schema.refuse_unknown()
        context.run_migrations()
        if not context.is_offline_mode() and not current.get_current_heads():
            for statement in schema.REMOVE:  # back at base: leave nothing behind
                context.execute(statement)


run()
