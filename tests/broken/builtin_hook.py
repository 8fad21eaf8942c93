kmm_builders = map
