"""The AWS KMS dialect (JSON 1.1): unmodified AWS clients use the same keys, by translation onto the operations."""
