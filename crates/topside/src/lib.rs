//! The library façade of Topside.
