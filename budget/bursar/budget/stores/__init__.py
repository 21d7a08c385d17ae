"""Where the ledger is kept: a SQLite file or a PostgreSQL database, its transactions and its tables' versions."""
