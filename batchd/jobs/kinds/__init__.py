"""One file a kind; each declares a `KIND`. The catalog finds them by looking here."""
