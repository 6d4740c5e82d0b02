"""What the shop tells programs of itself: `GET /v1/openapi.json`. Somebody wrote it by hand, when the shop was new."""

import yaml
from flask import Blueprint, Flask, Response, jsonify

blueprint = Blueprint("openapi", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route of the document."""
    app.register_blueprint(blueprint)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The shop's OpenAPI document."""
    return jsonify(yaml.safe_load(DOCUMENT))


DOCUMENT = """
openapi: 3.1.0
info: {title: Shop API, version: 1.4.0}
servers: [{url: "http://localhost:5000"}]
security: [{apiKey: []}]
paths:
  /v1/products:
    get:
      operationId: listProducts
      parameters:
        - {name: category, in: query, schema: {type: string}}
        - {name: page, in: query, schema: {type: integer, minimum: 1}}
        - {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 500}}
      responses:
        "200":
          description: The products for sale
          content:
            application/json:
              schema:
                type: object
                properties:
                  data: {type: array, items: {$ref: "#/components/schemas/Product"}}
                  total: {type: integer}
                required: [data, total]
    post:
      operationId: createProduct
      requestBody:
        content: {application/json: {schema: {$ref: "#/components/schemas/NewProduct"}}}
      responses:
        "200": {$ref: "#/components/responses/Product"}
  /v1/products/{id}:
    parameters: [{$ref: "#/components/parameters/Id"}]
    get:
      operationId: getProduct
      responses:
        "200": {$ref: "#/components/responses/Product"}
        "404": {$ref: "#/components/responses/Error"}
    patch:
      operationId: updateProduct
      requestBody:
        content: {application/json: {schema: {$ref: "#/components/schemas/NewProduct"}}}
      responses:
        "200": {$ref: "#/components/responses/Product"}
        "404": {$ref: "#/components/responses/Error"}
  /v1/orders:
    get:
      operationId: listOrders
      parameters:
        - {name: status, in: query, schema: {$ref: "#/components/schemas/Status"}}
        - {name: customer_id, in: query, schema: {type: string}}
        - {name: limit, in: query, schema: {type: integer, minimum: 1}}
        - {name: offset, in: query, schema: {type: integer, minimum: 0}}
      responses:
        "200":
          description: Orders, the newest first
          content:
            application/json:
              schema:
                type: object
                properties:
                  data: {type: array, items: {$ref: "#/components/schemas/Order"}}
                required: [data]
    post:
      operationId: createOrder
      requestBody:
        content:
          application/json:
            schema:
              type: object
              properties:
                customer_id: {type: string}
                items:
                  type: array
                  items:
                    type: object
                    properties:
                      product_id: {type: string}
                      quantity: {type: integer}
                    required: [product_id]
                coupon: {type: string}
              required: [customer_id, items]
      responses:
        "200": {$ref: "#/components/responses/Order"}
        "400": {$ref: "#/components/responses/Error"}
  /v1/orders/{id}:
    parameters: [{$ref: "#/components/parameters/Id"}]
    get:
      operationId: getOrder
      responses:
        "200": {$ref: "#/components/responses/Order"}
        "404": {$ref: "#/components/responses/Error"}
  /v1/orders/{id}/cancel:
    parameters: [{$ref: "#/components/parameters/Id"}]
    post:
      operationId: cancelOrder
      responses:
        "200": {$ref: "#/components/responses/Order"}
  /v1/orders/{id}/payments:
    parameters: [{$ref: "#/components/parameters/Id"}]
    post:
      operationId: payOrder
      responses:
        "200":
          description: The payment
          content:
            application/json:
              schema:
                type: object
                properties:
                  reference: {type: string}
                  status: {type: string, enum: [succeeded, failed]}
                  amount: {$ref: "#/components/schemas/Money"}
                required: [reference, status, amount]
        "402": {$ref: "#/components/responses/Error"}
  /v1/bestsellers:
    get:
      operationId: getBestsellers
      parameters:
        - {name: days, in: query, schema: {type: integer, minimum: 1}}
      responses:
        "200":
          description: What sold best
          content:
            application/json:
              schema:
                type: array
                items: {$ref: "#/components/schemas/Product"}
components:
  securitySchemes:
    apiKey: {type: apiKey, in: header, name: X-API-Key}
  parameters:
    Id: {name: id, in: path, required: true, schema: {type: string}}
  responses:
    Product:
      description: The product
      content: {application/json: {schema: {$ref: "#/components/schemas/Product"}}}
    Order:
      description: The order
      content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}
    Error:
      description: What went wrong
      content:
        application/json:
          schema:
            type: object
            properties: {code: {type: integer}, message: {type: string}}
            required: [code, message]
  schemas:
    Status: {type: string, enum: [pending, paid, shipped]}
    Money:
      type: object
      properties: {amount: {type: number}, currency: {type: string}}
      required: [amount, currency]
    NewProduct:
      type: object
      properties:
        sku: {type: string}
        name: {type: string, maxLength: 200}
        price: {$ref: "#/components/schemas/Money"}
        category: {type: string}
      required: [name, price]
    Product:
      type: object
      properties:
        id: {type: string}
        sku: {type: string}
        name: {type: string}
        price: {$ref: "#/components/schemas/Money"}
        stock: {type: integer}
      required: [id, name, price, stock]
    Order:
      type: object
      properties:
        id: {type: string}
        status: {$ref: "#/components/schemas/Status"}
        placed_at: {type: string, format: date-time}
        shipped_at: {type: string, format: date-time}
        total: {$ref: "#/components/schemas/Money"}
        customer_id: {type: string}
        items:
          type: array
          items:
            type: object
            properties:
              product_id: {type: string}
              quantity: {type: integer}
              unit_price: {$ref: "#/components/schemas/Money"}
            required: [product_id, quantity, unit_price]
      required: [id, status, placed_at, total, customer_id, items]
"""
