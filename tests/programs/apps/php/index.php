<?php
if ($_SERVER["REQUEST_URI"] === "/old") {
    header("Location: /new");
    exit;
}
session_start();
echo "hello from php at {$_SERVER["REQUEST_URI"]}\n";
