"""Texts and pictures of entities: found, cleaned, stored; and the files that authors released."""
