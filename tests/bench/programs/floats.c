/* Floating point: an n-body system, doubles, with square roots and divisions. */
#include "bench.h"

#define BODIES 5
static double position[BODIES][3], velocity[BODIES][3], mass[BODIES];

static double root(double value)
{
    double found;
    __asm__("fsqrt.d %0, %1" : "=f"(found) : "f"(value));
    return found;
}

int main(void)
{
    for (int i = 0; i < BODIES; i++) {
        mass[i] = 1.0 / (i + 1);
        for (int axis = 0; axis < 3; axis++)
            position[i][axis] = i * 1.5 + axis * 0.25, velocity[i][axis] = 0.01 * (i - axis);
    }
    for (u64 round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0.01;
                for (int axis = 0; axis < 3; axis++) {
                    d[axis] = position[i][axis] - position[j][axis];
                    square += d[axis] * d[axis];
                }
                double magnitude = 0.001 / (square * root(square));
                for (int axis = 0; axis < 3; axis++) {
                    velocity[i][axis] -= d[axis] * mass[j] * magnitude;
                    velocity[j][axis] += d[axis] * mass[i] * magnitude;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int axis = 0; axis < 3; axis++)
                position[i][axis] += 0.001 * velocity[i][axis];
    }
    union {
        double number;
        u64 word;
    } result = {position[0][0] + position[1][1]};
    report(result.word);
    return 0;
}
