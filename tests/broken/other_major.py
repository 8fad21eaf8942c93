raise AssertionError("a plugin for another contract must never be imported")
