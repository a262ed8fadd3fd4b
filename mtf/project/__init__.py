"""An experiments repository opened for a command: settings, specs, runs, cluster."""
