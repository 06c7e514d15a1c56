package web // want "package comments: package web has no comment"
