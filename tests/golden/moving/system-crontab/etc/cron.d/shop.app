# the shop
MAILTO=root
*/15 * * * * daemon [ -x /usr/lib/shop/gc ] && /usr/lib/shop/gc
09,39 * * * *     shopuser   /usr/lib/shop/refresh --quiet
@daily root
