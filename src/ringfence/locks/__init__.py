"""The lock manager's rules: which modes agree, a resource's three queues and value block, the
lockspaces of the ordered state, and one node's clients under the node's own cluster locks."""
