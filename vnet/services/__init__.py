"""What answers the guests of a network, as text for those who do it: dnsmasq."""
