"""The words that tables use for splits and for relation categories: the one place where they are listed.

Nothing is imported here, so that whoever needs the words need not depend on the code that reads or writes the tables.
"""

SPLITS = ("train", "dev", "test")
EVALUATED = ("dev", "test")  # what is ranked: dev chooses the weights, test is looked at once
OVERLAPS = (("dev", "train"), ("dev", "test"), ("test", "train"))  # where the first must hold no row of the second

# A relation without a triple in train belongs to none of the four categories of Bordes et al. (2013, section 4.2).
UNSEEN = "unseen"
CATEGORIES = ("1-1", "1-N", "N-1", "N-N", UNSEEN)
