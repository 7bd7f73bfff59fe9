//! YAML recipes as plain data.
