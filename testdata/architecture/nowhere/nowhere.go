// Package nowhere is planted: a folder without a place.
package nowhere // want "order: folder"
