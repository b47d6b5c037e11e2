//! Nouns that two rooms share: typed ids, records, contents, messages, calls, contracts, limits, money. Plain data.
