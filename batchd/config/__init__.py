"""One TOML file becomes one typed Settings value."""
