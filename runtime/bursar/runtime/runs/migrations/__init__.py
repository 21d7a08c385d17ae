"""The steps by which the tables of runs came to be; run by Alembic."""
