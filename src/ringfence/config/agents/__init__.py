"""What is known of fence agents: what an "off" of each proves, what each says of itself, and what each must
not be told.

Promises: nothing here starts an agent (`agents` does); a device is refused or corrected by one table, with
the reason; what an agent says of itself is read without trust."""
