"""The steps by which the tables of checkpoints came to be; run by Alembic."""
