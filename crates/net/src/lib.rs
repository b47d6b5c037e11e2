//! The only way out of the harness: canonical hosts, address classes, vetted dials, proxy and CA settings.
