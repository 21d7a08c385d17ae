"""What a person has to decide: asked, kept, shown to whom it concerns, decided once, and carried out."""
