"""Keys over their life: made, shown, changed, rotated, revoked, deleted."""
