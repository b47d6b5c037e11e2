//! Manifest, spec, lease, exec, terminals, files: the provider contract and the guest's wire.
