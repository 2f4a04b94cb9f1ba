"""Who may call: clients, their sessions and access keys, the grants between them."""
