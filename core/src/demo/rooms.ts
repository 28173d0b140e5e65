// SPDX-License-Identifier: AGPL-3.0-only

type DemoRoom = { name: string; label: string; description: string; tags: string[] }

/** The devices of the demo data; their order gives the set points of the cold chain scenario, the third one fails. */
export const demoRooms: readonly DemoRoom[] = [
  { name: '冷库-01', label: '一号冷冻库', description: '速冻水产，−18 °C', tags: ['冷冻'] },
  { name: '冷库-02', label: '二号冷藏库', description: '蔬菜，4 °C', tags: ['冷藏'] },
  { name: '冷库-03', label: '三号冷冻库', description: '肉类，−18 °C；压缩机在变弱', tags: ['冷冻'] },
  { name: '冷库-04', label: '四号药品库', description: '药品，2 °C', tags: ['药品'] },
  { name: '冷库-05', label: '五号低温库', description: '冰淇淋，−22 °C', tags: ['冷冻'] },
  { name: '冷库-06', label: '六号冷藏库', description: '水果，5 °C', tags: ['冷藏'] },
  { name: '冷库-07', label: '七号冷冻库', description: '面点，−18 °C', tags: ['冷冻'] },
  { name: '冷库-08', label: '八号冷藏库', description: '乳品，4 °C', tags: ['冷藏'] },
  { name: '冷库-09', label: '九号冷冻库', description: '禽类，−18 °C', tags: ['冷冻'] },
  { name: '冷库-10', label: '十号药品库', description: '疫苗，2 °C', tags: ['药品'] },
  { name: '冷库-11', label: '冷藏车 A', description: '车载低温箱，−22 °C', tags: ['冷冻', '车载'] },
  { name: '冷库-12', label: '冷藏车 B', description: '车载冷藏箱，5 °C', tags: ['冷藏', '车载'] },
]
