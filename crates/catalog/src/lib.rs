//! A folder of declarations becomes validated closures with digests; hot reload.
