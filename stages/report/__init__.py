"""The report: one page that shows every result, and what it rests on."""
