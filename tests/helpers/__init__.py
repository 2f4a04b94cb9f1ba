"""What the tests share: the service in this process and as it is started, and its clients."""
