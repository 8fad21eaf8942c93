NOTHING = "to see"
