"""Alembic's entry: the connection is handed in by `bursar.budget.stores.migrate`, inside its one transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    transactional_ddl=False,
)
context.run_migrations()
