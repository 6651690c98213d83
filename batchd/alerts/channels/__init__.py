"""One file a type of channel: its settings, and how a message leaves. The catalog finds them."""
