"""Operations for operators, and background tasks: audit log, metrics, mounts, policy, schedule, integrity check."""
