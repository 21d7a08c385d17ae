"""Whether the ledger is what it says: verification, who changed what, and retention under signed summaries."""
