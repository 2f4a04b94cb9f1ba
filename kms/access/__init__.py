"""Who may call: clients and their credentials, tokens, policy, lockout and rate limits."""
