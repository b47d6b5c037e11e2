//! Where secrets are kept and leased, and what is taken out before anything leaves.
