"""The steps by which the table of effects came to be; run by Alembic."""
