"""Wikidata, Wikipedia and Wikimedia Commons: asked politely, and kept as they answered."""
