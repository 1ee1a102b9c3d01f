package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "name", Value: "value", Path: "/"})
		fmt.Fprintf(w, "hello from go at %s\n", r.URL.Path)
	})
	http.HandleFunc("/old", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/new", http.StatusFound)
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
