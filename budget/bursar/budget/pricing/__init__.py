"""What tokens cost: price rows, the dated books they come from, and how providers say what was used."""
