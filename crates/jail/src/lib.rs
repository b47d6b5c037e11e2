//! The local Linux provider and its launcher.
