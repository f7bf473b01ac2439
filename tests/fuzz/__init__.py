"""Everything that comes from outside, held against inputs nobody would send in good faith."""
