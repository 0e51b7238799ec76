"""Who may have how much: pure functions of amounts, which never see State."""
