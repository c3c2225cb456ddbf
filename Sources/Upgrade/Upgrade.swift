// Upgrade
